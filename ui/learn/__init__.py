"""The tab Learn: a textbook of ten steps over recorded runs, a toy mixture, and the live tabs."""
