"""Suggestions for unknown settings: names in other libraries, other spellings, and near misses."""

import difflib
import re
from collections.abc import Collection, Mapping

from sparseq.errors import InputError
from sparseq_kernels.untrusted import QUOTED, quoted

# Our setting -> its names in transformers' Trainer and example scripts, in pruning and quantization tools of torch and
# others, and in common use. In lower case, with underscores.
_ELSEWHERE = {
    "model": "model_name model_name_or_path model_path model_id pretrained_model student student_model student_name "
    "student_name_or_path base_model checkpoint",
    "teacher": "teacher_model teacher_name teacher_name_or_path teacher_path teacher_id teacher_model_name_or_path",
    "layers": "num_hidden_layers num_layers n_layers n_layer keep_layers student_layers hidden_layers",
    "methods": "method compression",
    "task": "task_name benchmark glue_task",
    "data_dir": "data data_path data_folder glue_dir dataset_dir dataset_path",
    "train_file": "train train_data train_path train_dataset training_file training_data",
    "validation_file": "validation valid val dev eval test validation_data valid_file val_file dev_file eval_file "
    "eval_data eval_dataset test_file",
    "dataset": "dataset_name dataset_id hf_dataset dataset_config dataset_config_name",
    "train_split": "train_split_name training_split dataset_train_split",
    "validation_split": "valid_split val_split dev_split eval_split test_split dataset_test_split eval_split_name",
    "text_columns": "text text_column text_column_name text_column_names sentence_column sentence1_key sentence2_key "
    "input_columns text_fields",
    "label_column": "label labels label_column_name target target_column label_field",
    "label_kind": "problem_type task_type label_type labels_type regression is_regression",
    "max_train_rows": "max_train_samples max_train_examples train_samples num_train_examples",
    "max_validation_rows": "max_eval_samples max_val_samples max_validation_samples max_eval_examples",
    "max_length": "max_seq_length max_seq_len max_len seq_length seq_len sequence_length model_max_length "
    "max_source_length block_length",
    "bits": "num_bits n_bits nbits w_bits wbits weight_bits quant_bits quantization_bits",
    "activation": "activation_quantization activation_scale activation_scales a_quant",
    "scale": "weight_scale weight_scales scale_type observer",
    "calibration": "calibration_method calib_method calibrator activation_observer",
    "calibration_rows": "calibration_samples num_calibration_samples num_calib calibration_size calib_samples",
    "calibration_data": "calibration_dataset calib_data calib_dataset",
    "smooth": "smoothquant smooth_quant smooth_alpha smoothquant_alpha migration_strength",
    "qat_start": "quant_start quantization_start qat_start_step start_qat",
    "sparsity": "target_sparsity final_sparsity sparsity_level pruning_ratio prune_ratio pruning_amount amount "
    "prune_amount",
    "pattern": "sparsity_pattern mask_pattern block_size prune_pattern mask_block_rows sparsity_type",
    "criterion": "importance pruning_criterion prune_criterion importance_score score_type pruning_method ranking",
    "scope": "pruning_scope prune_scope global_pruning",
    "schedule": "sparsity_schedule pruning_schedule prune_schedule",
    "prune_warmup": "pruning_warmup initial_warmup prune_start pruning_start",
    "prune_end": "pruning_end final_warmup prune_stop",
    "prune_updates": "pruning_frequency prune_frequency pruning_steps prune_steps",
    "kd_loss": "distillation_loss distill_loss kd_loss_type loss_type",
    "temperature": "temp kd_temperature distillation_temperature distill_temperature",
    "kd_alpha": "alpha alpha_ce alpha_kd distillation_alpha distill_alpha kd_weight distillation_weight kd_ratio",
    "hidden_loss": "alpha_mse alpha_hidden hidden_weight hidden_loss_weight hidden_state_loss hidden_states_loss "
    "alpha_cos",
    "augment_copies": "augment aug_copies num_aug n_aug augmentations data_augmentation aug_train",
    "augment_rate": "aug_rate augmentation_rate replace_rate aug_p alpha_sr",
    "wordnet": "wordnet_dir wordnet_path wordnet_folder",
    "epochs": "epoch num_epochs n_epochs num_train_epochs train_epochs max_epochs",
    "batch_size": "train_batch_size per_device_train_batch_size per_gpu_train_batch_size batch bs "
    "gradient_accumulation_steps",
    "lr": "learning_rate learningrate max_lr peak_lr initial_lr init_lr base_lr step_size",
    "lr_warmup": "warmup warmup_ratio warmup_steps warmup_proportion num_warmup_steps lr_warmup_ratio",
    "weight_decay": "wd l2 decay",
    "class_weights": "class_weight weights_of_classes label_weights loss_weights pos_weight",
    "precision": "fp16 bf16 fp32 amp mixed_precision dtype torch_dtype half",
    "seed": "random_seed random_state data_seed rng_seed",
    "max_drop": "max_accuracy_drop max_accuracy_loss accuracy_drop accuracy_tolerance max_degradation",
    "baseline": "baseline_model reference reference_model original_model compare_with",
    "eval_every": "eval_steps evaluation_steps eval_interval evaluation_strategy eval_strategy val_check_interval",
    "keep": "load_best_model_at_end keep_best save_best early_stopping checkpoint_to_keep",
    "report_to": "logger loggers tracker trackers log_with tensorboard wandb mlflow",
    "save_steps": "checkpoint_steps checkpointing_steps save_interval save_every save_strategy",
    "eval_batch_size": "per_device_eval_batch_size per_gpu_eval_batch_size predict_batch_size",
    "out": "output output_dir out_dir output_path output_folder save_dir run_dir",
}
USUAL_NAMES = {name: ours for ours, names in _ELSEWHERE.items() for name in names.split()}
"""Name in other libraries -> our name."""


def meant(name: object, known: Collection[str]) -> str | None:
    """The setting among `known` that the unknown `name` most likely means; None if nothing is close.

    Case, dashes, dots and camel case do not matter: `--learning-rate`, `learningRate` and `LEARNING_RATE` are the same.
    """
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name)[:QUOTED]).lower()
    plain = re.sub(r"[\W_]+", "_", plain).strip("_")
    if plain in known:
        return plain
    if USUAL_NAMES.get(plain) in known:
        return USUAL_NAMES[plain]
    near = difflib.get_close_matches(plain, [*known, *USUAL_NAMES], n=1, cutoff=0.75)
    found = USUAL_NAMES.get(near[0], near[0]) if near else None
    return found if found in known else None


def unknown_setting(where: str, name: object, value: object, known: Collection[str]) -> InputError:
    """The error for a setting `name` with this value, of a file or what else `where` says, that is none of `known`."""
    if isinstance(value, Mapping):
        return InputError(f"{where} has a table {quoted(name)}: settings stand at the top, and belong to no table")
    close = meant(name, known)
    hint = f"did you mean {close!r}?" if close else f"the settings are {', '.join(known)}"
    return InputError(f"{where} has an unknown setting {quoted(name)}: {hint}")
