"""Many engines as one, by Ray"""
