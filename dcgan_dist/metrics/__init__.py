"""How good drawn images are: scores against real images, each with the protocol it was taken under."""
