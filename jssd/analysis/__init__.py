"""What self-distillation did to the law of the next token, and a toy in which it can be seen."""
