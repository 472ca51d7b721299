"""What the AWS provider asks of AWS, with real boto3 over HTTP against a server on loopback."""
