"""Raw impressions to packed ids and normalized numbers."""
