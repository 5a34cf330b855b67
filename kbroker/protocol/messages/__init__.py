"""Every Kafka message that kbroker speaks, declared once; one file per family, same names as `server/handlers`."""
