"""AC-RE of the ages of CelebA-HQ faces at 256 pixels (the paper's Table 2).

python explain.py --config configs/celeba_acre.py --workdir out_faces \
    --config.data.path=CelebAMask-HQ
python explain.py --config configs/celeba_acre.py --workdir out_own \
    --config.data.name=folder --config.data.path=FOLDER --config.targets=20,60

The first explains the test split with the paper's targets: 80 years for a face that is marked
Young, 10 for any other. The second takes any folder of 256 pixel faces and targets in years.
Without the checkpoints either command says where their originals are and how to convert them.

One image at a time takes 6.0 GiB of memory in all on a CPU, and an iteration 8.5 TFLOP.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the config."""
    config = ml_collections.ConfigDict()
    config.method = dict(
        name="ac-re",
        respacing="25",  # of the 500 timesteps
        tau=5,  # depth of the noising, in respaced steps
        iterations=200,
        step_size=1 / 255,
        gradient_floor=0.0,  # the share of the largest gradient below which a value stays still
        threshold=5.0,  # years; success: |prediction - target| at most this
        inpaint=0.15,  # dilated change below which a pixel is kept
        dilation=15,
        remat="step",  # what a gradient recomputes: "none", each "step" or "block" (least memory)
        precision="float32",  # of the generator; "bfloat16" for TPUs and recent GPUs
    )
    config.generator = dict(
        checkpoint="checkpoints/celebahq_ddpm",
        original="celebahq-ddpm.pt, the CelebA HQ diffusion model of ACE, in "
        "https://huggingface.co/guillaumejs2403/ACE",
        convert="celebahq-ddpm.pt --kind ddpm --preset celebahq",
    )
    config.regressor = dict(
        checkpoint="checkpoints/age_regressor",
        original="last.ckpt of the imdb-wiki-clean regressor in https://github.com/"
        "DevinTDHa/Diffusion-Counterfactuals-for-Image-Regressors/releases",
        convert="imdb-clean/version_0/checkpoints/last.ckpt --kind densenet-regressor "
        "--preset celebahq",
        unit="years",
        mean=0.0,  # the network predicts (age - mean) / scale
        scale=100.0,
    )
    config.oracle = dict(  # only eval.metrics asks it
        checkpoint="checkpoints/age_oracle",
        original="last.ckpt of the imdb-wiki-clean oracle in the same releases",
        convert="imdb-clean_oracle/version_0/checkpoints/last.ckpt --kind densenet-regressor "
        "--preset celebahq",
        unit="years",
        mean=0.0,
        scale=100.0,
    )
    # name: "celeba-hq", or "folder" of images; convert: fit a folder's images of other sizes.
    config.data = dict(
        name="celeba-hq",
        path="",
        limit=ml_collections.config_dict.placeholder(int),
        convert=False,
        attribute="Young",
        attribute_targets=(10.0, 80.0),  # years, for a face without and with the attribute
    )
    config.targets = ""  # years, "20,60": every image gets every target; "": by the attribute
    config.batch_size = "auto"  # as many as fit into the memory; a number changes no result
    config.seed = 0
    return config
