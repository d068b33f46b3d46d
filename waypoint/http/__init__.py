"""HTTP/1.1 and HTTP/2 on channels, both ends: heads as values, bodies streamed, errors of peers refused."""
