"""What `tutelage demo` teaches: customers' sentences in a bakery-café, and the JSON that they mean."""
