"""The retrieval service over HTTP: collections of pictures, clips and texts that are searched by any of them."""
