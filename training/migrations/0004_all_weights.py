from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('training', '0003_runs_by_hand'),
    ]

    operations = [
        migrations.AddField(
            model_name='checkpoint',
            name='all_weights',
            field=models.BooleanField(default=False, help_text='All weights were trained; else a trained checkpoint is a LoRA adapter on its base.'),
        ),
    ]
