"""How messages reach an IoT platform: one dialect for each, over one forwarder and one MQTT link."""
