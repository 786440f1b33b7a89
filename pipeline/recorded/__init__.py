"""What a record names: other places, which whoever wrote the record has chosen."""
