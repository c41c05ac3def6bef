//! Rewrites every convenience spelling to kernel form. (In work.)
