"""What a generator does to images and to a regressor's predictions, to choose tau and T by."""
