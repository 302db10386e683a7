"""What people say of a run's candidates, before it is published and after."""
