"""Many runs that differ in named settings: the search for good ones, and what each setting is worth."""
