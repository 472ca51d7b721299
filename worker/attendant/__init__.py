"""What runs on a login host for a controller elsewhere: files, mail, commands, repositories."""
