"""The tutorial as notebooks, in English and in Spanish, and the comparison of two ideas as a script."""
