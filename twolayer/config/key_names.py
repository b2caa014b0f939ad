"""The key that is meant by another name: a mistyped one, or what other libraries call it."""

from __future__ import annotations

from twolayer.config.schema import KEYS, SOURCES
from twolayer.formatting import nearest

# What scikit-learn, Keras, PyTorch's tutorials and other tools call a key, without underscores and hyphens.
_OTHER_NAMES = {
    "N": "nsamples numsamples samples rows nrows",
    "D_in": "inputsize inputdim ninputs numinputs nin infeatures din",
    "H": "hidden hiddensize hiddendim hiddenunits hiddenlayer hiddenlayersize hiddenlayersizes nhidden numhidden "
    "hiddenneurons neurons units width",
    "D_out": "outputsize outputdim noutputs numoutputs nout outfeatures dout",
    "lr": "learningrate learningrateinit eta eta0 stepsize",
    "epochs": "nepochs numepochs maxepochs numberofepochs epoch maxiter niter iter iters iterations numiterations "
    "niterations steps maxsteps nsteps numsteps",
    "seed": "randomstate randomseed rngseed rng",
    "device": "gpu accelerator usecuda",
    "init": "initialization initialisation initializer weightinit kernelinitializer",
    "loss": "criterion objective lossfn lossfunction",
    "batch_size": "batch minibatch minibatchsize batchsizes bs perdevicetrainbatchsize",
    "validation": "val valid validationsplit validationfraction validationset valsplit valsize testsize validationsize "
    "validationdata evalset holdout",
    "patience": "earlystopping earlystoppingpatience earlystoppingrounds niternochange",
    "dtype": "datatype floattype",
    "engine": "backend solver",
    "threads": "njobs numthreads nthreads ncpus nproc numworkers workers",
    "parts": "shards numparts nparts",
    "log_every": "verbose logging loginterval logeverynsteps printevery",
    "data.path": "file filename csv table datafile datapath dataset traindata",
    "data.target": "label labels labelcolumn targets targetcolumn response outcome y ycol",
    "data.inputs": "features featurecolumns predictors inputcolumns",
    "data.exclude": "drop dropcolumns ignore ignorecolumns omit skip skipcolumns excluded",
    "data.missing": "impute imputer imputation fillna missingvalues nanpolicy",
    "data.scale": "standardize standardise normalize normalise scaler scaling",
    "data.separator": "sep delimiter delim",
    "data.decimal": "dec decimalpoint",
    "data.noise": "sigma noisestd",
}
_MEANT = {other: key for key, names in _OTHER_NAMES.items() for other in names.split()}


def meant_key(name: str, source: str | None = None) -> str | None:
    """The known key, dotted, that is nearest in meaning or in spelling; None if none is near.

    With `source` the name stands inside `data`, whose keys of that source then come first.
    """
    plain = name[:100].lower().replace("_", "").replace("-", "")
    inside = list(SOURCES[source].model_fields) if source in SOURCES else []
    if near := nearest(name, inside):
        return f"data.{near}"
    every = dict.fromkeys(key for model in SOURCES.values() for key in model.model_fields)
    if found := _MEANT.get(plain) or (f"data.{name.lower()}" if name.lower() in every else None):
        return found
    return nearest(name, KEYS) or (f"data.{near}" if (near := nearest(name, every)) else None)
