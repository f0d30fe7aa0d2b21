"""What single studies compute beyond comparing arms, by subject; a notebook shows it and these modules hold it."""
