"""What a trial yields and has to prove: histograms, averages over time, conservation, the record."""
