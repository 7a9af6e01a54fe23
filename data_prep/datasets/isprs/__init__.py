"""ISPRS Potsdam and Vaihingen."""
