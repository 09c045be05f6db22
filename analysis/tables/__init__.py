"""The numbers in words, tables and files, for a person, a pull request or another program."""
