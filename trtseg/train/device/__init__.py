"""Training whose data, prompts and corrections are made on the device, whole batches at a time."""
