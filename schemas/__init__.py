"""What an impression is: the feature specs and the TFMD schemas made from them."""
