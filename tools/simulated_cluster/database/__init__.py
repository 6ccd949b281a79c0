"""A model of the database: its tables, and what the product's statements do with them."""
