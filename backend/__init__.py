"""What the product knows: campaigns, samples, training, evaluation. Knows `remote`, never a screen."""
