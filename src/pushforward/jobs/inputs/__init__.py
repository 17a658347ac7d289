"""Files of users -> what the library takes. What is wrong with a file is one error that names it."""
