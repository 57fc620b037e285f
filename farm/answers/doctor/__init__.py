"""What a real host's page_pool counters say: which regime its pools are in, with the evidence."""
