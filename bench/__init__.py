"""kbroker and Apache Kafka, measured in turn on one machine with the same client. `make bench`; see __main__.

frames       requests as bytes, built once before the clock starts
client       what a case needs beside its load: connect, create and delete topics, ask for ends
generator    the loads: they cost as little as Python can, and say how busy they were
librdkafka   the loads that go through confluent-kafka
machine      CPU and memory of a process, the disk, what machine this is
brokers      the two of them behind one interface
cases        what is measured: one function each
metrics      what the figures are called, which way is better, what they have to reach
report       the tables and the JSON
"""
