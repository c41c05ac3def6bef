//! The functions of the language. (In work.)
