"""What the commands print: tables of plans, images, objects, scores, trainings and nights."""
