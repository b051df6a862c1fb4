"""What starts jssd on clusters: see README.md here."""
