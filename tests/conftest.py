"""What all tests share."""

import os

# The brokers of tests live for seconds: the JVM's quick compiler alone takes a third of a start's CPU.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
