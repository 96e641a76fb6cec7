"""Communication over `torch.distributed`; nothing here knows about Lightning."""
