//! Seeded simulation of IKE cores over a hostile network.
