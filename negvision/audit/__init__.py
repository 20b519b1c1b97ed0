"""Find what is wrong in the labels of a data set, from what models think of them."""
