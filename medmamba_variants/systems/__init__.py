"""Published systems as variants of the builder: SYSTEMS maps a name to a system and the variant that stands for it.

SYSTEMS["vm_unet"].config  # the variant that stands for VM-UNet
SYSTEMS["vm_unet"].deviates  # where that variant and the system differ
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
