//! Laws that hold for every declared thing, checked by walking a registry.
