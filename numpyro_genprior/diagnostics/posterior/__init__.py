"""What did these data determine, and can the prior explain them?"""
