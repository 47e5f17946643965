//! The cryptography behind pollux-ike.
