//! Our words on top of Jinja. (In work.)
