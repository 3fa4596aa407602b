"""The tutorial as notebooks, in English and in Spanish; and scripts to read, such as the comparison of two ideas."""
