"""What is in a partition's files and whether they are whole, as lines. Reads files, changes nothing, prints nothing.

Knows the files as Kafka lays them out, not the code that writes them, so that it can judge it. Each dumper yields
lines; a `Damage` among them is what does not belong there. Files may be hostile: nothing in them is believed.
"""
