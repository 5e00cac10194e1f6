"""What several ops share: shapes of results, int8 products, arguments that index a mask. No ops are defined here."""
