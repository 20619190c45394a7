"""Linear algebra on functions: conjugate gradients."""
