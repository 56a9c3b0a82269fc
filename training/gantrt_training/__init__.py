"""Training and export of pix2pix, CycleGAN, DiscoGAN and U-GAT-IT. Needs torch; the runtime, `gantrt`, does not."""
