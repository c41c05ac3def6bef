//! The pure schedule: an interpreter over the plan. (In work.)
