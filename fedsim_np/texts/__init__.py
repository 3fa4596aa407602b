"""What readers are told in reports and figures: numbers, in one format (`numbers`)."""
