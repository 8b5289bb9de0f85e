"""The latest blessed model of earlier days."""
